"""Who signs: device keys, credentials, manifests, enrolment, keystores, sealing."""
