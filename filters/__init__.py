"""One signal a file, the rules that decide on their columns, and the splitter that finds shots."""
