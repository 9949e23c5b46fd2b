"""The only entry point: compose a configuration, build, evaluate or train, record.

python run.py merge=pitome ratio=0.925
python run.py -m merge=none,pitome,tome ratio=0.9,0.95 limit=500
python run.py --help
"""

import sys

from pitome.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
