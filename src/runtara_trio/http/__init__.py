"""A runtara-core 1.6 over HTTP.

location     from a URL to a server
backend      opens the client: ``remote`` over HTTP
asking       a call as a request, and an answer as what it says
bodies       the JSON of requests and answers
pool         connections that calls take turns on
connection   one connection: a request, and its answer to the end
"""
