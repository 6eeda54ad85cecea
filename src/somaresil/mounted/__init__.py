"""What the ASGI apps of ours have in common that are mounted in a service: who may use them, requests within bounds, answers."""
