"""Files in the format of age: what is encrypted here is decrypted by the ``age`` of any system, and the other way."""
