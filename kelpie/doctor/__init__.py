"""`kelpie doctor`: what a machine, or an account, lacks, and what to do about it. It changes nothing."""
