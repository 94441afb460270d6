//! Reports, evidence and their appraisal, one module per TEE.
