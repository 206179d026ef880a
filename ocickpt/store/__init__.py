"""References, OCI layout directories, the registry client, credentials, verifying readers.

Knows nothing of what blobs mean. Importing it costs little: the registry client is loaded when used.
"""

from ocickpt.store.access import Access, Retry
from ocickpt.store.base import Store
from ocickpt.store.cached import CachedSource, open_source
from ocickpt.store.open import copy_blobs, open_store
from ocickpt.store.reference import Reference

__all__ = ["Access", "CachedSource", "Reference", "Retry", "Store", "copy_blobs", "open_source", "open_store"]
