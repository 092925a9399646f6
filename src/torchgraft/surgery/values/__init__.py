"""New values for parameters: rules as data, which parameters they are for, and how they are drawn."""
