"""Cut, hash, compress, pack, and back; the index. Knows not where packs are kept."""
