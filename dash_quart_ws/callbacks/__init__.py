"""What runs? Dash's callbacks, on the event loop or in the pool, over HTTP or the websocket."""
