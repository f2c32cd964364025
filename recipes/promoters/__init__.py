"""A classifier of Arabidopsis TATA promoters."""
