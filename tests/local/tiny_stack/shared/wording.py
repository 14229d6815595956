GREETING = "hello from a linked folder"
