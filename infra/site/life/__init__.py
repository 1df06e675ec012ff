"""What changes in a site's life: workers come and go, backups are made and used, and one day it ends."""
