"""The commands, a module for each thing that they are about: arguments in, client code called, result shown."""
