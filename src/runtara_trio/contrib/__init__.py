"""Adapters to other libraries, each in a module of its own, which imports that library.

pydantic_ai   agents of pydantic-ai whose requests to models and calls of tools are durable
"""
