"""`kelpie ui`: a page on 127.0.0.1 that shows runs, starts them and takes pictures for the inbox. It keeps nothing."""
