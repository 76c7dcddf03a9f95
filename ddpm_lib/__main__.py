"""``python -m ddpm_lib``."""

from .cli import main

raise SystemExit(main())
