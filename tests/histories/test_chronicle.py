"""What is remembered, and what is answered: chronicle, report and commands, all in virtual time."""
