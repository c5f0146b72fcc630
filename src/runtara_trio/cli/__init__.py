"""The operator's command line.

main      the commands
show      how instances look, for people and for scripts
"""
