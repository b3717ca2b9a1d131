def draw(*args): pass
