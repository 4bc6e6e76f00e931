"""`signllava env --gpu-check`: what would be wrong or slow on this machine, with this LLM and this run folder."""
