import Glibc

exit(Launch.main())
