-- What a spool had to let go before a batch of readings, as JSON; log_chunks has had it from the first.
ALTER TABLE sensor_batches ADD COLUMN gap TEXT;
