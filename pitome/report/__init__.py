"""What people look at: tables, plots, pictures of tokens, the page."""
