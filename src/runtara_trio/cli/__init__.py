"""The operator's command line.

main      the commands
run       a block around somebody's function
demo      how the demo looks
show      how instances look, for people and for scripts
"""
