"""One file a flow: its body reads as a list of named steps."""
