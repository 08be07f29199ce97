"""What transactions mean: types, rules and rejections, one module per family."""
