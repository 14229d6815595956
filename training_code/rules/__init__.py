"""The debugger's rules, a module an idea; review.py runs them."""
