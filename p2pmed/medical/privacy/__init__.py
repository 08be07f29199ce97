"""What keeps a patient's record the patient's: keys, custody, consent, search, pseudonyms."""
