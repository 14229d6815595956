"""SageMaker on one machine: the control plane and the runtime, without a web server of its own.

`service.SageMaker` takes an action and its parameters and answers as SageMaker would; `account.Ports` is all that it
needs from outside. It knows nothing of the cloud that it runs in, nor of the product that calls it.
"""
