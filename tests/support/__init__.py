"""What tests share: no test lies here, and no helper elsewhere."""
