"""Makes streams from videos: decodes the cut of each clip, finds landmarks, runs image backbones on crops."""
