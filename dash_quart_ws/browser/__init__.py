"""What does the browser get?"""
