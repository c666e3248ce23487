"""What everything is made of: frozen records and the errors that users see."""
