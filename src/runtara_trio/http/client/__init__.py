"""The client: ``remote`` over HTTP.

backend      opens it
asking       each call in requests, and its answer as what it says
call         one call on its way
pool         connections that calls take turns on
connection   one connection: a request, and its answer to the end
operators    what operators ask
tls          which certificate is trusted
"""
