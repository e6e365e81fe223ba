"""A message as its reader sees it: charsets, encodings, headers, parts, texts, links."""
