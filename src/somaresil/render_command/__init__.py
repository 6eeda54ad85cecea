"""The command ``somaresil render``: boards, rules and manifests from the service's own configuration."""
