"""The instance protocol of runtara-core 1.4.1, without sockets, clocks or Trio.

frames        what stands around a message on a stream
calls         the messages as plain structs
mapping       structs to protobuf and back: the one module that knows the generated code
instance_pb2  generated from instance.proto
"""
