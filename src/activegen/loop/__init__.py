"""The closed loop: mining, proposing, generating, judging, rounds."""
