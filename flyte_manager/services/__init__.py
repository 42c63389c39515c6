"""One file for each flyteidl2 service: proto in, ledger or store, proto out."""
