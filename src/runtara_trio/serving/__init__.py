"""What servers of the instance protocol share, whatever carries its calls.

leases   whose instance it is
limits   how much is held for clients
"""
