"""Where actions are in untrimmed streams, learned from what whole streams have."""
