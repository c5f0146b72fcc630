"""What users call.

instance      open_runtara
runtara_sdk   RuntaraSdk, the verbs
waiting       durable sleeps and waits for signals
results       CheckpointResult
operator      Operator, for whoever runs the instances
current       current_sdk
"""
