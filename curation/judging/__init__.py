"""Judging by people: prompts to sample, a blind page to vote on, and what the votes say."""
