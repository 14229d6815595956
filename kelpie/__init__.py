"""The command of Kelpie: `kelpie --help`. The same client code for AWS and for the local cloud."""
