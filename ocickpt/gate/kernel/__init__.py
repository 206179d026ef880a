"""What the kernel says of a restored container while it stands still, held against its specification.

The second witness: the rules over CRIU's images say what it should have made, these look at what is there. Nothing of
an image is known here.
"""
