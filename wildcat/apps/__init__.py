"""Programs built on the library: report, web page, batch engine, the paper's experiments, quick start."""
