"""What carers do together: competence, referrals, consultations, surgery, cases, the record."""
