"""Training the teacher: data, rewards, cold start and GRPO. Stands outside the runtime and shares only its formats."""
