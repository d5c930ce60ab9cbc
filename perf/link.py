CONTROLS=()
def linked(*_): pass
