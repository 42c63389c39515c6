"""Where inputs, outputs, bundles, reports and logs lie: the directory, and the signed URLs that lead into it."""
