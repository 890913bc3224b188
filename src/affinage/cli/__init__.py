"""The command line, one file a verb: arguments -> workflow -> exit code. Results on stdout, all else on stderr."""
