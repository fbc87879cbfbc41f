"""What the processes of Thaw have in common: settings, pure rules, the database, the queue, the store."""
